-- What each version answered: how often, for about how many keys, since when, until when, and the mean.
-- $output: the output whose mean is shown
WITH answered AS (
    SELECT
        version,
        any_value(digest) AS digest,
        count(*) AS forecasts,
        approx_count_distinct(key) AS keys,
        min(time) AS first,
        max(time) AS last,
        avg({output}) AS mean
    FROM forecasts
    WHERE version IS NOT NULL
    GROUP BY version
), refused AS (
    SELECT version, any_value(digest) AS digest, count(*) AS rejections
    FROM rejections
    WHERE version > 0
    GROUP BY version
)
SELECT
    version,
    coalesce(forecasts, 0) AS forecasts,
    coalesce(rejections, 0) AS rejections,
    keys,
    first,
    last,
    mean,
    coalesce(answered.digest, refused.digest) AS digest
FROM answered
FULL JOIN refused USING (version)
ORDER BY version

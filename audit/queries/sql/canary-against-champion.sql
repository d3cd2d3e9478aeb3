-- Both versions while they shared the keys: answers, rejections, means, and milliseconds to the answer.
-- $output: the output whose mean is shown
WITH shared AS (
    SELECT DISTINCT revision FROM forecasts WHERE variant = 'candidate'
), refused AS (
    SELECT variant, version, count(*) AS rejections
    FROM rejections
    WHERE revision IN (FROM shared)
    GROUP BY ALL
), answered AS (
    SELECT
        variant,
        version,
        count(*) AS forecasts,
        approx_count_distinct(key) AS keys,
        avg({output}) AS mean,
        approx_quantile(epoch_ms(time) - epoch_ms(source_time), [0.5, 0.99]) AS ms
    FROM forecasts
    WHERE revision IN (FROM shared)
    GROUP BY ALL
)
SELECT
    version,
    variant,
    coalesce(forecasts, 0) AS forecasts,
    keys,
    coalesce(rejections, 0) AS rejections,
    round(100.0 * coalesce(rejections, 0) / (coalesce(forecasts, 0) + coalesce(rejections, 0)), 3)
        AS percent_rejected,
    mean,
    ms[1] AS ms_median,
    ms[2] AS ms_p99
FROM answered
FULL JOIN refused USING (version, variant)
ORDER BY version, variant

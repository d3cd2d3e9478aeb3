-- Why requests were rejected, most frequent first, each with its newest example.
WITH answered AS (
    SELECT count(revision) AS forecasts FROM forecasts
), refused AS (
    SELECT count(revision) AS rejections FROM rejections
)
SELECT
    reason,
    nullif(version, 0) AS version,
    count(*) AS rejections,
    round(100.0 * count(*) / any_value(answered.forecasts + refused.rejections), 3)
        AS percent_of_answers,
    min(time) AS first,
    max(time) AS last,
    arg_max(source_topic || '/' || source_partition || '/' || source_offset, time) AS example,
    arg_max(detail, time) AS detail
FROM rejections, answered, refused
WHERE reason IS NOT NULL
GROUP BY reason, version
ORDER BY rejections DESC, reason, version

-- Answers by period: forecasts, rejections, and the share that was rejected.
-- $period = 1 hour: how long a period is
WITH answers AS (
    SELECT time, false AS rejected FROM forecasts WHERE revision IS NOT NULL
    UNION ALL
    SELECT time, true AS rejected FROM rejections WHERE revision IS NOT NULL
)
SELECT
    time_bucket(CAST($period AS INTERVAL), time) AS period,
    count(*) FILTER (NOT rejected) AS forecasts,
    count(*) FILTER (rejected) AS rejections,
    round(100.0 * count(*) FILTER (rejected) / count(*), 3) AS percent_rejected
FROM answers
GROUP BY ALL
ORDER BY period

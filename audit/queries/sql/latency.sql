-- Milliseconds from the request's time to the answer's, by period and version.
-- $period = 1 hour: how long a period is
WITH taken AS (
    SELECT
        time_bucket(CAST($period AS INTERVAL), time) AS period,
        version,
        count(*) AS forecasts,
        approx_quantile(epoch_ms(time) - epoch_ms(source_time), [0.5, 0.95, 0.99]) AS ms,
        max(epoch_ms(time) - epoch_ms(source_time)) AS ms_max
    FROM forecasts
    WHERE version IS NOT NULL
    GROUP BY ALL
)
SELECT period, version, forecasts, ms[1] AS ms_median, ms[2] AS ms_p95, ms[3] AS ms_p99, ms_max
FROM taken
ORDER BY period, version

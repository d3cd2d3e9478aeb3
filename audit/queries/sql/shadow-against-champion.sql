-- Shadow answers beside the answers that callers got to the same requests.
-- $output: the output that is compared
SELECT
    shadow.version AS shadow,
    forecasts.version AS answered,
    count(*) AS requests,
    avg(shadow.{output}) AS mean_shadow,
    avg(forecasts.{output}) AS mean_answered,
    avg(abs(shadow.{output} - forecasts.{output})) AS mean_difference,
    max(abs(shadow.{output} - forecasts.{output})) AS largest_difference
FROM shadow
JOIN forecasts USING (source_topic, source_partition, source_offset)
GROUP BY ALL
ORDER BY shadow, answered

-- What each instance answered, and what it computed with.
SELECT
    instance,
    runtime,
    count(*) AS forecasts,
    count(DISTINCT version) AS versions,
    min(time) AS first,
    max(time) AS last
FROM forecasts
WHERE instance IS NOT NULL
GROUP BY ALL
ORDER BY instance, first

-- Request ids that were answered more than once, most often first.
-- $limit = 20: how many ids
SELECT
    request_id,
    count(*) AS forecasts,
    count(DISTINCT version) AS versions,
    count(DISTINCT outputs) AS different_outputs,
    min(time) AS first,
    max(time) AS last
FROM forecasts
WHERE request_id IS NOT NULL
GROUP BY request_id
HAVING count(*) > 1
ORDER BY forecasts DESC, request_id
LIMIT $limit

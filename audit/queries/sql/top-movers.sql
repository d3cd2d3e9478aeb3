-- The keys whose mean forecast differs most between two versions.
-- $before = 0: the earlier version; 0: the second newest that answered
-- $after = 0: the later version; 0: the newest that answered
-- $least = 1: forecasts that a key has of each at least
-- $limit = 20: how many keys
-- $output: the output that is compared
WITH newest AS (
    SELECT list(DISTINCT version ORDER BY version DESC) AS versions FROM forecasts
), chosen AS (
    SELECT
        CASE WHEN $before > 0 THEN $before ELSE versions[2] END AS before,
        CASE WHEN $after > 0 THEN $after ELSE versions[1] END AS after
    FROM newest
), means AS (
    SELECT key, version, avg({output}) AS mean, count(*) AS forecasts
    FROM forecasts
    WHERE version IN (SELECT unnest([before, after]) FROM chosen)
    GROUP BY ALL
    HAVING count(*) >= $least
)
SELECT
    key,
    old.version AS before,
    new.version AS after,
    old.mean AS mean_before,
    new.mean AS mean_after,
    new.mean - old.mean AS change,
    new.mean / nullif(old.mean, 0) AS ratio,
    old.forecasts AS forecasts_before,
    new.forecasts AS forecasts_after
FROM means AS old
JOIN means AS new USING (key)
JOIN chosen ON old.version = chosen.before AND new.version = chosen.after
ORDER BY abs(change) DESC, key
LIMIT $limit

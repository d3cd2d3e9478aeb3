-- Every answer that a request id got: forecasts, rejections and shadows.
-- $id: the request id
WITH found AS (
    SELECT 'forecast' AS answer, * FROM forecasts WHERE request_id = $id
    UNION ALL BY NAME
    SELECT 'rejection' AS answer, * FROM rejections WHERE request_id = $id
    UNION ALL BY NAME
    SELECT 'shadow' AS answer, * FROM shadow WHERE request_id = $id
)
SELECT
    answer,
    time,
    key,
    version,
    variant,
    revision,
    inputs,
    outputs,
    reason,
    detail,
    source_topic || '/' || source_partition || '/' || source_offset AS source,
    topic || '/' || partition || '/' || "offset" AS place,
    digest,
    instance,
    runtime,
    file
FROM found
ORDER BY time, place

-- Every event of the control log that was copied: when, what, by whom, why.
SELECT
    revision,
    event_time AS time,
    replace(replace(type, 'io.modelwire.', ''), '.v1', '') AS event,
    actor,
    json_extract_string(data, '$.reason') AS reason,
    data,
    commandid
FROM control
WHERE revision IS NOT NULL
ORDER BY revision

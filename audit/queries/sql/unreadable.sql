-- Records of the answer topics that are no answers: somebody else wrote there.
SELECT 'results' AS kind, time, topic, partition, "offset", key, octet_length(raw) AS bytes, file
FROM forecasts WHERE revision IS NULL
UNION ALL
SELECT 'rejections', time, topic, partition, "offset", key, octet_length(raw), file
FROM rejections WHERE revision IS NULL
UNION ALL
SELECT 'shadow', time, topic, partition, "offset", key, octet_length(raw), file
FROM shadow WHERE revision IS NULL
ORDER BY time

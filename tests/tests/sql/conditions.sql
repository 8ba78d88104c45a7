CREATE TABLE out (id INT, a STRING, b BIGINT, c STRING, d DOUBLE) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT id, CASE WHEN paid THEN 'yes' WHEN NOT paid THEN 'no' ELSE 'unknown' END, COALESCE(units, 0), IF(score > 1, 'high', 'low'), NULLIF(score, 0.0)
FROM orders
WHERE (name IS NULL OR name LIKE '%n%' OR note LIKE '%!_%' ESCAPE '!') AND id NOT IN (5);

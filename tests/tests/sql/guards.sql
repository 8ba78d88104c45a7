CREATE TABLE out (id INT, ratio BIGINT, guarded STRING) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
CREATE VIEW ratios AS SELECT id, units, 100 / (id - 3) AS ratio FROM orders WHERE id <> 3;
INSERT INTO out
SELECT id, CAST(ratio AS BIGINT), CASE WHEN id = 5 THEN 'five' WHEN 10 / (id - 5) > 0 THEN 'above' ELSE 'below' END
FROM ratios
WHERE ratio <> 7 AND (id = 4 OR 8 / (id - 4) > -100) AND id - 2 <> 0 AND 12 / (id - 2) < 100;

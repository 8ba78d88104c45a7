CREATE TABLE out (id INT, m BIGINT, q BIGINT, g BIGINT, l DOUBLE, p DOUBLE, s DOUBLE, r DOUBLE, product DECIMAL(23, 3), wrapped BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT id, MOD(units, 3), units / 2, GREATEST(units, CAST(id AS BIGINT)), LOG(score), POWER(id, 2), SIGN(score), ROUND(score, 1), 0.908 * price, units + 1
FROM orders;

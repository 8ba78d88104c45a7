CREATE TABLE out (id INT, next INT, wrapped INT, flag INT, big BIGINT, small DOUBLE, shifted INT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT id, id + 1, id + 2147483647, CASE WHEN paid THEN 1 ELSE 0 END, 2147483648, id / 2e0, -id * 3 FROM orders;

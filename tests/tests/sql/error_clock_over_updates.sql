CREATE TABLE out (id INT, n BIGINT, at TIMESTAMP(3), PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT id, COUNT(*), LOCALTIMESTAMP FROM orders GROUP BY id;

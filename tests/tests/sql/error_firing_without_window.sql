CREATE TABLE out (why STRING) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT FIRING() FROM orders;

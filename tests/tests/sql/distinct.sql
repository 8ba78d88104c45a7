CREATE TABLE seen (name STRING, paid BOOLEAN) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO seen SELECT DISTINCT name, paid FROM orders;

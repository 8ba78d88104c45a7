CREATE TABLE out (a STRING) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT
  CAST(score AS STRING) FROM orders;

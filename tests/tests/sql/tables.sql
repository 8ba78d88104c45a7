CREATE TABLE orders (
  id INT, name STRING, price DECIMAL(10, 2), score DOUBLE, units BIGINT, paid BOOLEAN, note STRING, etime TIMESTAMP(3),
  home ROW<city STRING, place ROW<zip INT>>,
  hour_of AS HOUR(etime),
  WATERMARK FOR etime AS etime - INTERVAL '2' SECOND
) WITH ('connector' = 'filesystem', 'path' = '${input}', 'format' = 'json');

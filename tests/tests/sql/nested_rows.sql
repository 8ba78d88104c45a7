CREATE TABLE out (id INT, city STRING, zip INT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT id, orders.home.city, home.place.zip FROM orders WHERE home.city IS NOT NULL;

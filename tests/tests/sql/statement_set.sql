CREATE TABLE out (id INT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
CREATE TABLE nothing (id INT) WITH ('connector' = 'blackhole');
EXECUTE STATEMENT SET
BEGIN
INSERT INTO out SELECT id FROM orders WHERE paid;
INSERT INTO nothing SELECT id FROM orders;
END;

CREATE TABLE out (id INT, a STRING, b STRING, c STRING, d STRING, e BIGINT, f STRING, g STRING) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT id, CONCAT(name, '-', note), name || '!', SPLIT_INDEX(note, '/', 1), UPPER(SUBSTRING(name, 2, 3)), CHAR_LENGTH(name), CONCAT_WS('+', name, note),
  LPAD(name, 6, '*')
FROM orders;

CREATE TABLE out (id INT, day STRING, minute_of BIGINT, week BIGINT, dow BIGINT, dow2 BIGINT, epoch STRING, later TIMESTAMP(3), hour_of BIGINT, instant TIMESTAMP_LTZ(3)) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT id, DATE_FORMAT(etime, 'yyyyMMdd''T''HH:mm:ss.SSS'), EXTRACT(MINUTE FROM etime), WEEK(etime), DAYOFWEEK(etime), EXTRACT(DOW FROM etime),
  FROM_UNIXTIME(id), etime + INTERVAL '1' MINUTE, hour_of, TO_TIMESTAMP_LTZ(1767225600000, 3)
FROM orders;

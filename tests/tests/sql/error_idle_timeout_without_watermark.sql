CREATE TABLE clicks (n BIGINT, t TIMESTAMP(3)) WITH ('connector' = 'datagen', 'scan.watermark.idle-timeout' = '30 s');
CREATE TABLE out (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT n FROM clicks;

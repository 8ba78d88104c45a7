-- Plays of every song per 10 minutes, seen while they are counted: at most every second what has changed, all of a window when it closes,
-- and for a minute more what late plays change.
CREATE TABLE plays (
  song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3),
  WATERMARK FOR etime AS etime - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'plays', 'format' = 'json', 'mode' = 'continuous', 'allowed-lateness' = '1 min');

CREATE TABLE hot (
  window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE, firing STRING,
  PRIMARY KEY (window_start, song_id) NOT ENFORCED
) WITH ('connector' = 'filesystem', 'path' = 'hot', 'format' = 'parquet');

INSERT INTO hot
SELECT window_start, song_id, count(*), sum(play_score), FIRING()
FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' MINUTE))
GROUP BY window_start, window_end, song_id
EMIT EVERY INTERVAL '1' SECOND;

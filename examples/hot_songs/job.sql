-- Plays and score of every song, per 10 seconds of event time.
CREATE TABLE plays (
  song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3),
  WATERMARK FOR etime AS etime - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'examples/hot_songs/data/plays', 'format' = 'json');

CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE)
  WITH ('connector' = 'filesystem', 'path' = 'examples/hot_songs/data/hot', 'format' = 'parquet');

INSERT INTO hot
SELECT window_start, song_id, count(*), sum(play_score)
FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, song_id;

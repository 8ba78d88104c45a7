-- How many songs have been played how often, and how well they are liked: an aggregate of results that change. A song that is played once
-- more leaves one row for the next.
CREATE TABLE plays (
  song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)
) WITH ('connector' = 'filesystem', 'path' = 'plays', 'format' = 'json', 'mode' = 'continuous');

CREATE TABLE how_often (
  plays BIGINT, songs BIGINT, first_song BIGINT, last_song BIGINT, best DOUBLE, PRIMARY KEY (plays) NOT ENFORCED
) WITH ('connector' = 'filesystem', 'path' = 'how_often', 'format' = 'parquet');

INSERT INTO how_often
SELECT plays, count(*), min(song_id), max(song_id), max(score)
FROM (SELECT song_id, count(*) AS plays, sum(play_score) AS score FROM plays GROUP BY song_id)
GROUP BY plays;

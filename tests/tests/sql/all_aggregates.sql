CREATE TABLE out (
  n BIGINT, s DOUBLE, low STRING, high STRING, mean DOUBLE, v DOUBLE, vp DOUBLE, sd DOUBLE, sp DOUBLE, cs DOUBLE, cp DOUBLE, c DOUBLE, every_paid BOOLEAN,
  some_paid BOOLEAN, ones BIGINT, any_bit BIGINT, odd BIGINT
) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT COUNT(score), SUM(score), MIN(name), MAX(name), AVG(score), VAR_SAMP(score), VAR_POP(score), STDDEV_SAMP(score), STDDEV_POP(score), COVAR_SAMP(score, id),
  COVAR_POP(score, id), CORR(score, id), BOOL_AND(paid), BOOL_OR(paid), BIT_AND(units), BIT_OR(units), BIT_XOR(units)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '1' DAY)) GROUP BY window_start, window_end;

-- Take the turn to sweep, which is KEYS[1], for ARGV[1] ms. Returns 1, or 0 if another worker has it.
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  return 1
end
return 0

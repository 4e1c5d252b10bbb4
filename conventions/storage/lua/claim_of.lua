#!lua flags=allow-oom
-- uses claims
-- What is known of a claim.
-- KEYS: prefix
-- ARGV: claim
-- Returns {token, state, id of the message, fingerprint, generation, '1' where what follows it was sent}; none of them where nothing is known
local token, state, id, fingerprint, generation, followed =
  fields_of(KEYS[1] .. 'claim:' .. ARGV[1], 'token', 'state', 'id', 'fingerprint', 'generation', 'followed')
return {token, state, id, fingerprint, generation, followed}

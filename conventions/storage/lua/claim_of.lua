#!lua flags=allow-oom
-- uses claims
-- Read a claim.
-- KEYS: prefix
-- ARGV: claim
-- Returns {token, state, message id, fingerprint, generation, '1' if its follow-ups were sent}; all missing if there is no claim
local token, state, id, fingerprint, generation, followed =
  fields_of(KEYS[1] .. 'claim:' .. ARGV[1], 'token', 'state', 'id', 'fingerprint', 'generation', 'followed')
return {token, state, id, fingerprint, generation, followed}

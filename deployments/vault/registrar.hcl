# Registrar: seals keys for one organisation. For the command line of members with models:write. Opens nothing.
# "update", never "create": with "create", a missing key would be made silently, with default settings.

path "{{mount}}/encrypt/byok-{{org}}" {
  capabilities        = ["update"]
  required_parameters = ["plaintext", "context"]
  denied_parameters   = { "batch_input" = [] }
}

# Tells whether two keys are the same, without storing either.
path "{{mount}}/hmac/byok-fp-{{org}}/sha2-256" {
  capabilities        = ["update"]
  required_parameters = ["input"]
  denied_parameters   = { "batch_input" = [] }
}

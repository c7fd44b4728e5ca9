# Worker: opens the keys of one organisation, one at a time, for the tasks that probe, evaluate and judge. Nothing else.

path "{{mount}}/decrypt/byok-{{org}}" {
  capabilities        = ["update"]
  required_parameters = ["ciphertext", "context"]
  denied_parameters   = { "batch_input" = [] }
}

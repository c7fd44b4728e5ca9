# Maintainer: rotates the organisation's transit key and rewraps what was sealed with older versions. Cannot decrypt.

path "{{mount}}/keys/byok-{{org}}" {
  capabilities = ["read"]
}

path "{{mount}}/keys/byok-{{org}}/rotate" {
  capabilities = ["update"]
}

path "{{mount}}/rewrap/byok-{{org}}" {
  capabilities = ["update"]
}

# The one setting that ends a rotation; a parameter that is not listed is refused.
path "{{mount}}/keys/byok-{{org}}/config" {
  capabilities       = ["update"]
  allowed_parameters = { "min_decryption_version" = [] }
}

# Key admin: creates, configures and deletes the organisation's keys. Break-glass: no credentials are issued unless asked for.

path "{{mount}}/keys/byok-{{org}}" {
  capabilities = ["create", "read", "update", "delete"]
}

path "{{mount}}/keys/byok-{{org}}/*" {
  capabilities = ["create", "update", "delete"]
}

path "{{mount}}/keys/byok-fp-{{org}}" {
  capabilities = ["create", "read", "update", "delete"]
}

path "{{mount}}/keys/byok-fp-{{org}}/*" {
  capabilities = ["create", "update", "delete"]
}

# Key material leaves the server for nobody.
path "{{mount}}/export/*" {
  capabilities = ["deny"]
}

path "{{mount}}/backup/*" {
  capabilities = ["deny"]
}

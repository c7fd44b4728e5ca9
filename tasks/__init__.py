"""One module per verb: thin `@task` wrappers that open the services, call the domain and return ids."""

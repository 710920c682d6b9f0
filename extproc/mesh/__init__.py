"""Istio's manifests: read, checked (`lint`), and translated for a bare Envoy (`render`).

`manifests` reads files, `world` says what a cluster with them would know, `routes`, `clusters`,
`endpoints` and `listeners` say what istiod makes of that for one proxy, `patches` apply the
EnvoyFilters, and `render` ties them. Configuration is protobuf JSON in original field names, as
plain dictionaries; `proto` holds it to Envoy's types.
"""

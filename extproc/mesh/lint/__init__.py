"""What is wrong with manifests, or will be: a table of rules, each of which looks at all of them.

Here belongs what a cluster would take and then not do as it was meant. What can't be read at all
is an error (`MeshError`), not a finding. Nothing here knows of rendering; rules about LLM traffic
leave manifests alone that have nothing to do with it.
"""

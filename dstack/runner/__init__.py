"""The process that dstack launches on a host. Shipped as a zipapp: Python 3.9, standard library, dstack.wire."""

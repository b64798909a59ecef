"""The bundled servers: `watchkeep stack up|down|status|logs|build`.

Nothing here is imported by a watched application: it is a tool beside the package.
"""

"""What stands between a connection and the routes: pure ASGI, so that streams pass untouched."""

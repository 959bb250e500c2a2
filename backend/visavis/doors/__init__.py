"""Where requests come in: Socket.IO and HTTP."""

package client

// Server is what a broker says of itself when a client connects.
type Server struct {
	Version   string
	ClusterID string
	NodeID    string
}

// Server returns what the broker said in the last handshake.
func (c *Client) Server() Server { return *c.server.Load() }

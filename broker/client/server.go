package client

// Server is what a broker said of itself when the client connected.
type Server struct {
	Version   string
	ClusterID string
	NodeID    string
}

// Server returns what the broker said on the first connection, the last time it
// was made; the zero value while there is none.
func (c *Client) Server() Server {
	l := c.links[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cn == nil {
		return Server{}
	}
	h := &l.cn.hello
	return Server{Version: h.ServerVersion, ClusterID: h.ClusterID, NodeID: h.NodeID}
}

package client

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Look is what goes on at one node at this moment, by its endpoint as in Config. It is
// not repeated where the node does not answer.
func (c *Client) Look(ctx context.Context, endpoint string) (*decreev1.View, error) {
	e, ok := c.endpoints.find(endpoint)
	if !ok {
		return nil, fmt.Errorf("decree: %q is not one of the endpoints", endpoint)
	}
	answer, err := attempt(ctx, e, nil, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.LookResponse, error) {
		return decreev1.NewLiveClient(conn).Look(ctx, &decreev1.LookRequest{})
	})
	if err != nil {
		k := &call{mode: read}
		k.judge(err)
		return nil, k.err
	}
	return answer.GetView(), nil
}

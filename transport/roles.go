package transport

import (
	"strings"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
)

// This file is the one that says which role may call which method. A method that has
// no row is nobody's; a test finds it by the descriptors of the services. The HTTP API
// is the same calls, by the same rows. Of whose transactions somebody may see and end,
// beyond that, see ownership.go.

// roles are those that may call a method. Nodes pass on what others may: then it is the
// other's role that counts.
type roles []certs.Role

// anyone marks a method that needs no identity.
var anyone = roles{"anyone"}

var (
	users     = roles{certs.Client, certs.Operator}
	observers = roles{certs.Client, certs.Operator, certs.Reader}
	watchmen  = roles{certs.Operator, certs.Reader}
	operators = roles{certs.Operator}
	everyone  = roles(certs.Roles)
)

// rights are the rows.
var rights = map[string]roles{
	decreev1.Transactions_Submit_FullMethodName:     users,
	decreev1.Transactions_SubmitMany_FullMethodName: {certs.Client, certs.Operator, certs.Node}, // each submission is asked for Submit's row
	decreev1.Transactions_Begin_FullMethodName:      users,
	decreev1.Transactions_Enlist_FullMethodName:     users,
	decreev1.Transactions_Commit_FullMethodName:     users,
	decreev1.Transactions_Abort_FullMethodName:      users,
	decreev1.Transactions_Inquire_FullMethodName:    {certs.Client, certs.Operator, certs.Participant},
	decreev1.Transactions_Get_FullMethodName:        observers,
	decreev1.Transactions_List_FullMethodName:       observers,
	decreev1.Transactions_Watch_FullMethodName:      observers,
	decreev1.Timelines_GetTimeline_FullMethodName:   observers,

	decreev1.Live_Look_FullMethodName:         watchmen,
	decreev1.Live_WatchCluster_FullMethodName: watchmen,

	// A registration tells of statements, addresses and files.
	decreev1.Participants_Put_FullMethodName:    operators,
	decreev1.Participants_Get_FullMethodName:    watchmen,
	decreev1.Participants_List_FullMethodName:   watchmen,
	decreev1.Participants_Delete_FullMethodName: operators,
	decreev1.Participants_Check_FullMethodName:  operators,

	decreev1.Cluster_Status_FullMethodName:             everyone,
	decreev1.Cluster_AddNode_FullMethodName:            operators,
	decreev1.Cluster_RemoveNode_FullMethodName:         operators,
	decreev1.Cluster_TransferLeadership_FullMethodName: operators,
	decreev1.Groups_SetGroup_FullMethodName:            operators,

	decreev1.Operations_ListAudit_FullMethodName:     watchmen,
	decreev1.Operations_ExamineBranch_FullMethodName: operators,
	decreev1.Operations_ResolveBranch_FullMethodName: operators,

	// A snapshot holds payloads, and what is unresolved is everybody's.
	decreev1.Snapshots_Save_FullMethodName:            operators,
	decreev1.Unresolved_ListUnresolved_FullMethodName: operators,
	decreev1.Unresolved_GetEvidence_FullMethodName:    operators,
	decreev1.Unresolved_Decide_FullMethodName:         operators,

	// Load balancers and probes ask for health and have no identity. It tells whether
	// the node lives and leads.
	healthv1.Health_Check_FullMethodName: anyone,
	healthv1.Health_Watch_FullMethodName: anyone,
	healthv1.Health_List_FullMethodName:  anyone,

	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      everyone,
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: everyone,
}

// has reports whether a role is among them.
func (rs roles) has(r certs.Role) bool {
	for _, one := range rs {
		if one == r {
			return true
		}
	}
	return false
}

// open reports whether a method needs no identity.
func (rs roles) open() bool { return len(rs) == 1 && rs[0] == anyone[0] }

func (rs roles) String() string {
	names := make([]string, len(rs))
	for i, r := range rs {
		names[i] = string(r)
	}
	return strings.Join(names, " or ")
}

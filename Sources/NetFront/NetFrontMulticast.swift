import NetIf

/// Which groups a card listens to, and what of that its backend has not been told (io/netif.h, `feature-multicast-control`).
struct NetFrontMulticast {
  struct Change: Hashable {
    let group: MACAddress
    let isJoined: Bool
  }

  /// Whether the backend is asked to hold back what goes to other groups.
  var isFiltering = false
  private(set) var groups: Set<MACAddress> = []
  /// Those that the backend has refused to take into its list.
  private(set) var refused: Set<MACAddress> = []
  /// What is to be said yet, in its order from `next` on.
  private var changes: [Change] = []
  private var next = 0

  var hasChanges: Bool { next < changes.count }

  /// The backend knows none of them.
  mutating func connect() {
    (changes, next, refused) = ([], 0, [])
    for group in groups { changes.append(Change(group: group, isJoined: true)) }
  }

  /// There is nobody to tell.
  mutating func disconnect() { (changes, next) = ([], 0) }

  /// - Parameter isTold: whether there is a backend that has such a list.
  mutating func set(_ group: MACAddress, isJoined: Bool, isTold: Bool) {
    guard isJoined ? groups.insert(group).inserted : groups.remove(group) != nil else { return }
    if !isJoined { refused.remove(group) }
    if isTold { changes.append(Change(group: group, isJoined: isJoined)) }
  }

  /// Says as much as there is room for.
  mutating func tell(_ queues: NetFrontQueues) {
    while hasChanges, queues.put(changes[next]) { next += 1 }
    if !hasChanges { (changes, next) = ([], 0) }
  }

  mutating func settle(_ change: Change, _ result: NetTxResult) {
    // One that was left meanwhile is no matter any more.
    guard change.isJoined, result != .sent, groups.contains(change.group) else { return }
    refused.insert(change.group)
  }
}

extension NetIfExtraInfo {
  /// What a backend is told of a group.
  init(_ change: NetFrontMulticast.Change) {
    let bytes = change.group.bytes
    func word(_ place: Int) -> UInt16 { UInt16(bytes[place]) | UInt16(bytes[place + 1]) << 8 }
    self.init(
      type: change.isJoined ? NetIf.ExtraType.addMulticast : NetIf.ExtraType.removeMulticast,
      words: (word(0), word(2), word(4)))
  }
}

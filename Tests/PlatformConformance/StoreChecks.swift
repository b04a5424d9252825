import XenPlatform

/// Every check of the store works below here, in the domain's home.
private let root = "platform-conformance"

let storeChecks = [
  PlatformCheck("storeReadsBackWhatWasWritten") { platform in
    try withStore(of: platform) { store in
      let value: [UInt8] = [0, 255, 10, 47]
      try store.write("\(root)/a/b", value, in: nil)
      try expect(try store.read("\(root)/a/b", in: nil), is: value, "the value written")
      let home = "/local/domain/\(platform.domain.rawValue)"
      try expect(try store.read("\(home)/\(root)/a/b", in: nil), is: value, "the value by its absolute path")
      try expect(try store.read("\(root)/a", in: nil), is: [], "the value of a node made on the way")
      try store.makeDirectory("\(root)/c", in: nil)
      try store.makeDirectory("\(root)/a/b", in: nil)
      try expect(try store.read("\(root)/a/b", in: nil), is: value, "the value after mkdir of the same node")
      try expect(try store.directory(root, in: nil).sorted(), is: ["a", "c"], "the directory")
      try store.remove("\(root)/a", in: nil)
      try expect(try store.directory(root, in: nil), is: ["c"], "the directory after a removal")
    }
  },
  PlatformCheck("storeTellsWhyItRefuses") { platform in
    try withStore(of: platform) { store in
      try store.makeDirectory(root, in: nil)
      let absent = "\(root)/absent"
      try expectRefusal(.notFound, "read of an absent node") { _ = try store.read(absent, in: nil) }
      try expectRefusal(.notFound, "directory of an absent node") { _ = try store.directory(absent, in: nil) }
      try expectRefusal(.notFound, "permissions of an absent node") { _ = try store.permissions(absent, in: nil) }
      try store.remove(absent, in: nil)
      try expectRefusal(.notFound, "rm below an absent node") { try store.remove("\(absent)/below", in: nil) }
      for path in ["", "\(root)//a", "\(root)/", "\(root)/a b", "\(root)/a\0b", String(repeating: "x", count: 3000)] {
        try expectRefusal(.invalid, "read of the path \(path.prefix(30).debugDescription)") {
          _ = try store.read(path, in: nil)
        }
      }
      try expectRefusal(.notFound, "unwatch of what is not watched") { try store.unwatch(root, token: "none") }
      try expectRefusal(.notFound, "unwatch of what cannot be watched") { try store.unwatch("\(root)//a", token: "t") }
      try expectRefusal(.invalid, "empty permissions") { try store.setPermissions(root, [], in: nil) }
    }
  },
  PlatformCheck("storeValueEndsAtThePayloadLimit") { platform in
    try withStore(of: platform) { store in
      // One message holds path, a zero and value: XENSTORE_PAYLOAD_MAX of io/xs_wire.h.
      let longest = [UInt8](repeating: 7, count: 4096 - root.utf8.count - 1)
      try store.write(root, longest, in: nil)
      try expect(try store.read(root, in: nil), is: longest, "the longest value")
      try expectRefusal(.tooBig, "a value one byte longer") { try store.write(root, longest + [7], in: nil) }
    }
  },
  PlatformCheck("storePathEndsAtItsLimit") { platform in
    try withStore(of: platform) { store in
      // XENSTORE_REL_PATH_MAX of io/xs_wire.h; what is longer than a message is refused as such.
      let longest = root + "/" + String(repeating: "x", count: 2048 - root.utf8.count - 1)
      try store.write(longest, [1], in: nil)
      let home = "/local/domain/\(platform.domain.rawValue)/"
      try expect(try store.read(home + longest, in: nil), is: [1], "the value by the absolute path")
      try expectRefusal(.invalid, "a path one byte longer") { try store.write(longest + "x", [], in: nil) }
      try expectRefusal(.invalid, "its absolute form") { _ = try store.read(home + longest + "x", in: nil) }
      try expectRefusal(.tooBig, "a path longer than a message") { _ = try store.read(longest + longest, in: nil) }
      try expectRefusal(.tooBig, "a token longer than a message") { try store.watch(root, token: longest + longest) }
    }
  },
  PlatformCheck("storeKeepsPermissionsAndChildrenInheritThem") { platform in
    try withStore(of: platform) { store in
      try store.makeDirectory(root, in: nil)
      let entries = [
        XenstorePermission(platform.domain, .none), XenstorePermission(DomainID(rawValue: 1), .read),
        XenstorePermission(DomainID(rawValue: 2), .write), XenstorePermission(DomainID(rawValue: 3), .both),
      ]
      try store.setPermissions(root, entries, in: nil)
      try expect(try store.permissions(root, in: nil), is: entries, "the permissions set")
      try store.write("\(root)/a/b", [], in: nil)
      try expect(try store.permissions("\(root)/a/b", in: nil), is: entries, "a new child's permissions")
    }
  },
  PlatformCheck("transactionIsSeenByNobodyUntilItIsCommitted") { platform in
    try withStore(of: platform) { store in
      try store.write("\(root)/a", [1], in: nil)
      let kept = try store.startTransaction()
      try store.write("\(root)/a", [2], in: kept)
      try store.write("\(root)/b", [2], in: kept)
      try expect(try store.read("\(root)/a", in: kept), is: [2], "the value inside")
      try expect(try store.read("\(root)/a", in: nil), is: [1], "the value outside")
      try expect(try store.directory(root, in: nil), is: ["a"], "the directory outside")
      try store.endTransaction(kept, commit: true)
      try expect(try store.read("\(root)/a", in: nil), is: [2], "the committed value")
      let dropped = try store.startTransaction()
      try store.remove("\(root)/a", in: dropped)
      try expectRefusal(.notFound, "read of what the transaction removed") {
        _ = try store.read("\(root)/a", in: dropped)
      }
      try store.endTransaction(dropped, commit: false)
      try expect(try store.read("\(root)/a", in: nil), is: [2], "the value after a transaction that was dropped")
      try expectRefusal(.notFound, "read in a transaction that has ended") { _ = try store.read(root, in: dropped) }
      try expectRefusal(.notFound, "second end of a transaction") {
        try store.endTransaction(dropped, commit: true)
      }
    }
  },
  PlatformCheck("transactionConflictsWithAChangeOfWhatItRead") { platform in
    try withStore(of: platform) { store in
      let other = try platform.openXenstore()
      try store.write("\(root)/a", [1], in: nil)
      try store.write("\(root)/b", [1], in: nil)
      let disturbed = try store.startTransaction()
      _ = try store.read("\(root)/a", in: disturbed)
      try store.write("\(root)/b", [2], in: disturbed)
      try other.write("\(root)/a", [3], in: nil)
      try expectRefusal(.conflict, "commit after another's write") {
        try store.endTransaction(disturbed, commit: true)
      }
      try expect(try store.read("\(root)/b", in: nil), is: [1], "the value that the conflicting transaction wrote")
      let undisturbed = try store.startTransaction()
      _ = try store.read("\(root)/a", in: undisturbed)
      try store.write("\(root)/a", [4], in: undisturbed)
      try other.write("\(root)/b", [4], in: nil)
      try store.endTransaction(undisturbed, commit: true)
      try expect(try store.read("\(root)/a", in: nil), is: [4], "the value beside another's write")
    }
  },
  PlatformCheck("transactionConflictsWhenAnAbsentNodeThatItReadAppears") { platform in
    try withStore(of: platform) { store in
      let other = try platform.openXenstore()
      try store.makeDirectory("\(root)/there", in: nil)
      try store.makeDirectory("\(root)/here", in: nil)
      let transaction = try store.startTransaction()
      try expectRefusal(.notFound, "read of an absent node") { _ = try store.read("\(root)/there/a", in: transaction) }
      try store.write("\(root)/here", [], in: transaction)
      try other.write("\(root)/there/a", [1], in: nil)
      try expectRefusal(.conflict, "commit after the node appeared") {
        try store.endTransaction(transaction, commit: true)
      }
    }
  },
  PlatformCheck("transactionConflictsWithAChangeOfWhatItWrote") { platform in
    try withStore(of: platform) { store in
      let other = try platform.openXenstore()
      try store.makeDirectory("\(root)/a", in: nil)
      let transaction = try store.startTransaction()
      try store.write("\(root)/a", [1], in: transaction)
      try other.write("\(root)/a", [2], in: nil)
      try expectRefusal(.conflict, "commit after another's write of the same node") {
        try store.endTransaction(transaction, commit: true)
      }
    }
  },
  PlatformCheck("transactionConflictsWithANewSiblingOfWhatItMade") { platform in
    try withStore(of: platform) { store in
      let other = try platform.openXenstore()
      try store.makeDirectory(root, in: nil)
      let transaction = try store.startTransaction()
      try store.write("\(root)/a", [1], in: transaction)
      try other.write("\(root)/b", [2], in: nil)
      try expectRefusal(.conflict, "commit after another made a sibling") {
        try store.endTransaction(transaction, commit: true)
      }
    }
  },
  PlatformCheck("transactionSeesOneStateOfTheStore") { platform in
    try withStore(of: platform) { store in
      let other = try platform.openXenstore()
      try store.makeDirectory("\(root)/a", in: nil)
      let transaction = try store.startTransaction()
      _ = try store.read("\(root)/a", in: transaction)
      try other.write("\(root)/a", [2], in: nil)
      try expect(try store.read("\(root)/a", in: transaction), is: [], "the value seen again inside")
      try store.endTransaction(transaction, commit: false)
    }
  },
  PlatformCheck("watchFiresAtOnceAndOnEachChangeBelow") { platform in
    try withStore(of: platform) { store in
      try store.watch("\(root)/a", token: "t")
      try expect(try nextEvent(store), is: XenstoreWatchEvent(path: "\(root)/a", token: "t"), "the first event")
      try expectRefusal(.exists, "a second watch of the same path and token") {
        try store.watch("\(root)/a", token: "t")
      }
      try store.write("\(root)/aside", [], in: nil)
      try store.write("\(root)/a/b/c", [1], in: nil)
      try expect(try nextEvent(store).path, is: "\(root)/a/b/c", "the path of a change below")
      for _ in 1...2 {
        try store.write("\(root)/a", [1], in: nil)
        try expect(try nextEvent(store).path, is: "\(root)/a", "the path of a change")
      }
      try store.makeDirectory("\(root)/a", in: nil)
      try expectNoEvent(store, "mkdir of a node that exists")
      let home = "/local/domain/\(platform.domain.rawValue)"
      try expectRefusal(.exists, "the same watch by its absolute path") {
        try store.watch("\(home)/\(root)/a", token: "t")
      }
      try store.watch("\(home)/\(root)/a", token: "absolute")
      try expect(try nextEvent(store).path, is: "\(home)/\(root)/a", "the first event of an absolute watch")
      try store.unwatch("\(root)/a", token: "t")
      try store.write("\(root)/a/d", [], in: nil)
      let event = XenstoreWatchEvent(path: "\(home)/\(root)/a/d", token: "absolute")
      try expect(try nextEvent(store), is: event, "the event of the watch that is left")
      try expectNoEvent(store, "the end of a watch")
    }
  },
  PlatformCheck("watchHearsOfARemovalAboveIt") { platform in
    try withStore(of: platform) { store in
      try store.write("\(root)/a/b/c", [], in: nil)
      try store.watch("\(root)/a/b", token: "t")
      _ = try nextEvent(store)
      try store.remove("\(root)/a", in: nil)
      try expect(try nextEvent(store).path, is: "\(root)/a/b", "the path of the event")
      try expectNoEvent(store, "the removal, a second time")
    }
  },
  PlatformCheck("watchHearsOfATransactionWhenItIsCommitted") { platform in
    try withStore(of: platform) { store in
      try store.makeDirectory(root, in: nil)
      try store.watch(root, token: "t")
      _ = try nextEvent(store)
      let transaction = try store.startTransaction()
      for value: UInt8 in 1...3 { try store.write("\(root)/a", [value], in: transaction) }
      try expectNoEvent(store, "a transaction under way")
      try store.endTransaction(transaction, commit: true)
      try expect(try events(store), is: ["\(root)/a"], "the paths of the events")
    }
  },
  PlatformCheck("eventsOfATransactionComeInTheOrderInWhichItLookedAtTheirNodes") { platform in
    try withStore(of: platform) { store in
      for name in ["a", "b/c"] { try store.write("\(root)/\(name)", [1], in: nil) }
      try store.watch(root, token: "t")
      _ = try nextEvent(store)
      let transaction = try store.startTransaction()
      _ = try store.read("\(root)/a", in: transaction)
      try store.write("\(root)/new", [2], in: transaction)
      try store.write("\(root)/b/c", [2], in: transaction)
      try store.remove("\(root)/b", in: transaction)
      try store.write("\(root)/a", [2], in: transaction)
      try store.endTransaction(transaction, commit: true)
      // b/c went with b, but was named itself.
      try expect(try events(store), is: ["a", "new", "b/c", "b"].map { "\(root)/\($0)" }, "the paths of the events")
    }
  },
  PlatformCheck("watchHearsOncePerNodeThatWasNamed") { platform in
    try withStore(of: platform) { store in
      try store.makeDirectory("\(root)/old/below", in: nil)
      try store.watch(root, token: "t")
      _ = try nextEvent(store)
      let transaction = try store.startTransaction()
      try store.write("\(root)/x/y/z", [1], in: transaction)
      try store.write("\(root)/x/y", [1], in: transaction)
      try store.makeDirectory("\(root)/m", in: transaction)
      try store.remove("\(root)/old", in: transaction)
      try store.write("\(root)/short-lived", [], in: transaction)
      try store.remove("\(root)/short-lived", in: transaction)
      try store.endTransaction(transaction, commit: true)
      let named = ["x/y/z", "x/y", "m", "old"].map { "\(root)/\($0)" }
      try expect(try events(store).sorted(), is: named.sorted(), "the paths after the commit")
      try store.write("\(root)/p/q/r", [1], in: nil)
      try store.setPermissions("\(root)/x", [XenstorePermission(platform.domain, .read)], in: nil)
      try store.remove("\(root)/nothing", in: nil)
      try expect(
        try events(store), is: ["p/q/r", "x"].map { "\(root)/\($0)" }, "the paths outside a transaction")
      try store.remove("\(root)/x", in: nil)
      try expect(try events(store), is: ["\(root)/x"], "the path of a removal")
    }
  },
  PlatformCheck("specialWatchFiresAtOnceAndNamesNoNode") { platform in
    try withStore(of: platform) { store in
      for path in ["@introduceDomain", "@releaseDomain"] {
        try store.watch(path, token: "t")
        try expect(try nextEvent(store), is: XenstoreWatchEvent(path: path, token: "t"), "the first event")
        try expectRefusal(.exists, "the same watch") { try store.watch(path, token: "t") }
        try expectRefusal(.invalid, "a read of \(path)") { _ = try store.read(path, in: nil) }
        try expectRefusal(.invalid, "a write of \(path)") { try store.write(path, [], in: nil) }
        try store.unwatch(path, token: "t")
      }
    }
  },
]

private func withStore(of platform: any Platform, _ body: (any Xenstore) throws -> Void) throws {
  let store = try platform.openXenstore()
  try? store.remove(root, in: nil)
  try body(store)
  try store.remove(root, in: nil)
}

private func expectRefusal(_ code: XenstoreError.Code, _ what: String, _ body: () throws -> Void) throws {
  do { try body() } catch let error as XenstoreError {
    return try expect(error.code, is: code, "the refusal of \(what)")
  }
  throw Nonconformity(description: "\(what) is not refused")
}

private func nextEvent(_ store: any Xenstore) throws -> XenstoreWatchEvent {
  try expect(isReadable(store.descriptor, within: patience), "a watch event makes the descriptor readable")
  guard let event = store.nextWatchEvent() else {
    throw Nonconformity(description: "the descriptor is readable without a watch event")
  }
  return event
}

/// The paths of all events below the root that have been brought about by now, in order.
private func events(_ store: any Xenstore) throws -> [String] {
  // Its own event comes behind theirs.
  let end = "\(root)/end"
  try store.write(end, [], in: nil)
  var paths: [String] = []
  while true {
    let path = try nextEvent(store).path
    if path == end { return paths }
    paths.append(path)
  }
}

private func expectNoEvent(_ store: any Xenstore, _ cause: String) throws {
  let readable = isReadable(store.descriptor, within: silence)
  let event = store.nextWatchEvent()
  try expect(
    !readable && event == nil, "\(cause) gives no event; got \(event.map { "\($0)" } ?? "a readable descriptor")")
}

import Glibc
import XenPlatform

let grantChecks = [
  PlatformCheck("sharedPagesStartZeroAndAreSeenFromBothEnds") { platform in
    let pages = try platform.grants.share(pageCount: 4, with: platform.domain, writable: true)
    try expect(Set(pages.references).count, is: 4, "the number of distinct references")
    try expect(pages.bytes.copied().allSatisfy { $0 == 0 }, "shared pages are zero")
    let order = [2, 0, 3, 1]
    let mapped = try platform.grants.map(
      order.map { pages.references[$0] }, of: platform.domain, writable: true)
    for page in 0..<4 { fill(pages.bytes.slice(from: page * xenPageSize, count: xenPageSize), with: UInt8(page + 1)) }
    for (position, page) in order.enumerated() {
      let bytes = mapped.bytes.slice(from: position * xenPageSize, count: xenPageSize)
      try expect(bytes.copied().allSatisfy { $0 == UInt8(page + 1) }, "page \(page) is mapped at place \(position)")
      fill(bytes, with: UInt8(page + 101))
    }
    for page in 0..<4 {
      let bytes = pages.bytes.slice(from: page * xenPageSize, count: xenPageSize).copied()
      try expect(bytes.allSatisfy { $0 == UInt8(page + 101) }, "page \(page) shows what the mapper wrote")
    }
  },
  PlatformCheck("readOnlyMapCannotBeWritten") { platform in
    let pages = try platform.grants.share(pageCount: 1, with: platform.domain, writable: false)
    fill(pages.bytes, with: 9)
    let mapped = try platform.grants.map(pages.references, of: platform.domain, writable: false)
    try expect(mapped.bytes.copied().allSatisfy { $0 == 9 }, "a read-only map shows what the owner wrote")
    // Safe: the kernel's own write into it reports a fault instead of raising one.
    let zero = unsafe open("/dev/zero", O_RDONLY)
    defer { _ = close(zero) }
    let count = unsafe read(zero, mapped.baseAddress, 1)
    try expect(count == -1 && errno == EFAULT, "a write into a read-only map faults")
  },
  PlatformCheck("badReferenceFailsTheWholeMapAndIsNamed") { platform in
    let pages = try platform.grants.share(pageCount: 2, with: platform.domain, writable: true)
    let bad = GrantReference(rawValue: .max)
    try expectRefusedMap(of: bad, platform, [pages.references[0], bad, pages.references[1]], writable: true)
    // The good ones are none the worse.
    _ = try platform.grants.map(pages.references, of: platform.domain, writable: true)
  },
  PlatformCheck("readOnlyGrantCannotBeMappedWritable") { platform in
    let readOnly = try platform.grants.share(pageCount: 1, with: platform.domain, writable: false)
    let writable = try platform.grants.share(pageCount: 1, with: platform.domain, writable: true)
    let both = writable.references + readOnly.references
    let status = try expectRefusedMap(of: readOnly.references[0], platform, both, writable: true)
    try expect(status, is: .generalError, "the status")
    _ = try platform.grants.map(both, of: platform.domain, writable: false)
  },
  PlatformCheck("grantForAnotherDomainCannotBeUsed") { platform in
    let other = DomainID(rawValue: platform.domain.rawValue + 1)
    let pages = try platform.grants.share(pageCount: 1, with: other, writable: true)
    let status = try expectRefusedMap(of: pages.references[0], platform, pages.references, writable: false)
    try expect(status, is: .generalError, "the status of the map")
    try expect(
      try statuses(platform, [.fromGrant], [pages.references[0]]), is: [.generalError], "the status of the copy")
  },
  PlatformCheck("grantOfADomainThatIsNotThereCannotBeUsed") { platform in
    let nobody = DomainID(rawValue: DomainID.firstReserved - 1)
    let reference = GrantReference(rawValue: 8)
    do throws(GrantError) { _ = try platform.grants.map([reference], of: nobody, writable: false) } catch {
      return try expect(error, is: .refused(reference, of: nobody, .badDomain), "the refusal")
    }
    throw Nonconformity(description: "the map is not refused")
  },
  PlatformCheck("referenceNamesNothingWhenItsRegionHasEnded") { platform in
    var reference = GrantReference(rawValue: 0)
    do {
      let pages = try platform.grants.share(pageCount: 1, with: platform.domain, writable: true)
      reference = pages.references[0]
      try expect(try statuses(platform, [.fromGrant], [reference]), is: [.okay], "the copy while it is shared")
    }
    try expect(try statuses(platform, [.fromGrant], [reference]), is: [.generalError], "the copy afterwards")
    _ = try expectRefusedMap(of: reference, platform, [reference], writable: false)
  },
  PlatformCheck("mappingOutlivesItsSharing") { platform in
    let mapped = try mapOfPageNoLongerShared(platform, filledWith: 5)
    try expect(mapped.bytes.copied().allSatisfy { $0 == 5 }, "what is mapped stays readable")
  },
  PlatformCheck("copyGoesBothWaysWithinAPage") { platform in
    let pages = try platform.grants.share(pageCount: 1, with: platform.domain, writable: true)
    let own = PrivatePages(pageCount: 2)
    let region = own.region()
    let bytes = region.bytes
    fill(bytes.slice(from: 0, count: 100), with: 3)
    var copies = [
      GrantCopy(
        .toGrant, local: bytes.slice(from: 0, count: 100), reference: pages.references[0], of: platform.domain,
        offset: 3996),
      // Our own memory may straddle pages; the granted page may not.
      GrantCopy(
        .fromGrant, local: bytes.slice(from: 4000, count: 200), reference: pages.references[0], of: platform.domain,
        offset: 3896),
    ]
    var span = copies.mutableSpan
    platform.grants.copy(&span)
    try expect(copies.map(\.status), is: [.okay, .okay], "the statuses")
    let there = pages.bytes.copied()
    let here = bytes.slice(from: 4000, count: 200).copied()
    try expect(there.prefix(3996).allSatisfy { $0 == 0 } && there.suffix(100).allSatisfy { $0 == 3 }, "it went there")
    try expect(here.prefix(100).allSatisfy { $0 == 0 } && here.suffix(100).allSatisfy { $0 == 3 }, "it came here")
  },
  PlatformCheck("copyThatFailsLeavesTheOthersAlone") { platform in
    let pages = try platform.grants.share(pageCount: 1, with: platform.domain, writable: true)
    let readOnly = try platform.grants.share(pageCount: 1, with: platform.domain, writable: false)
    let own = PrivatePages(pageCount: 1)
    let region = own.region()
    for index in 0..<200 { fill(region.bytes.slice(from: 16 * index, count: 16), with: UInt8(index + 1)) }
    // More than any platform passes on in one piece, the bad ones in several of them.
    var copies = (0..<200).map { index in
      GrantCopy(
        .toGrant, local: region.bytes.slice(from: 16 * index, count: 16), reference: pages.references[0],
        of: platform.domain, offset: UInt16(16 * index))
    }
    copies[0].offset = 4081
    copies[50].reference = GrantReference(rawValue: .max)
    copies[51].reference = readOnly.references[0]
    copies[150].domain = DomainID(rawValue: DomainID.firstReserved - 1)
    copies[199].offset = .max
    var span = copies.mutableSpan
    platform.grants.copy(&span)
    var expected = [GrantStatus](repeating: .okay, count: 200)
    expected[0] = .badCopyArgument
    expected[50] = .badReference
    expected[51] = .generalError
    expected[150] = .badDomain
    expected[199] = .badCopyArgument
    let there = pages.bytes.copied()
    for index in copies.indices {
      try expect(copies[index].status, is: expected[index], "the status of copy \(index)")
      let byte = expected[index] == .okay ? UInt8(index + 1) : 0
      try expect(
        Array(there[16 * index..<16 * index + 16]), is: [UInt8](repeating: byte, count: 16),
        "what copy \(index) brought")
    }
    try expect(readOnly.bytes.copied().allSatisfy { $0 == 0 }, "the read-only page is as it was")
  },
]

private func fill(_ bytes: SharedBytes, with byte: UInt8) {
  let value = [UInt8](repeating: byte, count: bytes.count)
  bytes.copy(from: value.span)
}

private func mapOfPageNoLongerShared(_ platform: any Platform, filledWith byte: UInt8) throws -> SharedRegion {
  let pages = try platform.grants.share(pageCount: 1, with: platform.domain, writable: true)
  fill(pages.bytes, with: byte)
  return try platform.grants.map(pages.references, of: platform.domain, writable: true)
}

@discardableResult private func expectRefusedMap(
  of bad: GrantReference, _ platform: any Platform, _ references: [GrantReference], writable: Bool
) throws -> GrantStatus {
  do throws(GrantError) {
    _ = try platform.grants.map(references, of: platform.domain, writable: writable)
  } catch {
    guard case .refused(bad, of: platform.domain, let status) = error else {
      throw Nonconformity(description: "the map fails in another way: \(error)")
    }
    return status
  }
  throw Nonconformity(description: "the map is not refused")
}

/// How one-byte copies in these directions, at these references, end.
private func statuses(
  _ platform: any Platform, _ directions: [GrantCopy.Direction], _ references: [GrantReference]
) throws -> [GrantStatus] {
  let own = PrivatePages(pageCount: 1)
  let region = own.region()
  var copies = zip(directions, references).map { direction, reference in
    GrantCopy(
      direction, local: region.bytes.slice(from: 0, count: 1), reference: reference, of: platform.domain, offset: 0)
  }
  var span = copies.mutableSpan
  platform.grants.copy(&span)
  return copies.map(\.status)
}

import CLinux
import Glibc
import XenPlatform

/// What a ``Loopback`` counts of grants; at the end of a well-behaved run everything but the totals is zero.
public struct GrantCounts: Hashable, Sendable {
  /// Pages shared now.
  public internal(set) var sharedPages = 0
  /// Pages mapped now.
  public internal(set) var mappedPages = 0
  /// Pages whose owner stopped sharing them while they were mapped: Xen says "still in use", and they stay out of use.
  public internal(set) var quarantinedPages = 0
  /// Pages mapped, and segments copied, since the start.
  public internal(set) var mapTotal = 0
  public internal(set) var copyTotal = 0
}

/// Every domain's grant table and the pages behind it.
struct GrantSpace {
  /// One `share`: pages of one memfd, mapped by their owner.
  @safe private struct Run {
    let descriptor: CInt
    let baseAddress: UnsafeMutableRawPointer
    let owner: DomainID
    let references: ClosedRange<UInt32>
    var mappedPages = 0
    var isShared = true
  }

  private struct Grant {
    let run: Int
    let page: Int
    let grantee: DomainID
    let writable: Bool
  }

  private struct Key: Hashable {
    let domain: DomainID
    let reference: UInt32
  }

  @safe private struct Mapping {
    let baseAddress: UnsafeMutableRawPointer
    let runs: [Int]
  }

  private var domains: Set<DomainID> = []
  private var runs: [Int: Run] = [:]
  private var runByAddress: [UInt: Int] = [:]
  private var grants: [Key: Grant] = [:]
  private var mappings: [UInt: Mapping] = [:]
  /// References are never given out twice, so that a stale one is noticed; 0 to 7 are Xen's own.
  private var nextReference: [DomainID: UInt32] = [:]
  private var nextRun = 0
  private(set) var counts = GrantCounts()

  mutating func introduce(_ domain: DomainID) { domains.insert(domain) }

  mutating func share(
    pageCount: Int, from owner: DomainID, with grantee: DomainID, writable: Bool
  ) throws(GrantError) -> (baseAddress: UnsafeMutableRawPointer, references: [GrantReference]) {
    let byteCount = pageCount * xenPageSize
    let descriptor = unsafe linux_memfd("xen-grants")
    guard descriptor >= 0, ftruncate(descriptor, byteCount) == 0 else {
      if descriptor >= 0 { _ = close(descriptor) }
      throw .exhausted(pageCount: pageCount, advice: "no memory or file descriptor is left in this process")
    }
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
    guard unsafe address != MAP_FAILED, let address = unsafe address else {
      _ = close(descriptor)
      throw .system(call: "mmap", reason: unsafe String(cString: strerror(errno)))
    }
    let first = nextReference[owner, default: 8]
    let references = first...(first + UInt32(pageCount) - 1)
    nextReference[owner] = references.upperBound + 1
    unsafe runs[nextRun] = Run(descriptor: descriptor, baseAddress: address, owner: owner, references: references)
    runByAddress[UInt(bitPattern: address)] = nextRun
    for (page, reference) in references.enumerated() {
      grants[Key(domain: owner, reference: reference)] =
        Grant(run: nextRun, page: page, grantee: grantee, writable: writable)
    }
    nextRun += 1
    counts.sharedPages += pageCount
    return (unsafe address, references.map(GrantReference.init(rawValue:)))
  }

  /// The owner's region ended: its references name nothing any more; pages still mapped elsewhere are set aside.
  mutating func unshare(at address: UInt) {
    guard let number = runByAddress.removeValue(forKey: address), var run = runs[number] else {
      preconditionFailure("a shared region ends once")
    }
    for reference in run.references { grants[Key(domain: run.owner, reference: reference)] = nil }
    counts.sharedPages -= run.references.count
    counts.quarantinedPages += run.mappedPages
    run.isShared = false
    unsafe munmap(run.baseAddress, run.references.count * xenPageSize)
    runs[number] = run
    forgetIfUnused(number)
  }

  /// What `domain` granted to `grantee` under `reference`, if it did, and for this use. Xen's word for most refusals is
  /// just an error; it tells only of references that lie outside the table, which grows by pages of 512 entries.
  private func grant(
    _ reference: GrantReference, of domain: DomainID, to grantee: DomainID, writable: Bool
  ) -> Result<Grant, GrantStatusError> {
    guard domains.contains(domain) else { return .failure(GrantStatusError(status: .badDomain)) }
    guard reference.rawValue / 512 <= (nextReference[domain, default: 8] - 1) / 512 else {
      return .failure(GrantStatusError(status: .badReference))
    }
    guard let grant = grants[Key(domain: domain, reference: reference.rawValue)], grant.grantee == grantee,
      grant.writable || !writable
    else { return .failure(GrantStatusError(status: .generalError)) }
    return .success(grant)
  }

  private struct GrantStatusError: Error { let status: GrantStatus }

  mutating func map(
    _ references: [GrantReference], of domain: DomainID, by grantee: DomainID, writable: Bool
  ) throws(GrantError) -> UnsafeMutableRawPointer {
    precondition(!references.isEmpty, "at least one reference")
    var found: [Grant] = []
    for reference in references {
      switch grant(reference, of: domain, to: grantee, writable: writable) {
      case .success(let grant): found.append(grant)
      case .failure(let error): throw .refused(reference, of: domain, error.status)
      }
    }
    let byteCount = references.count * xenPageSize
    // A reservation first, then each stretch of neighbouring pages over it, so that the region is contiguous.
    let reserved = unsafe mmap(nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard unsafe reserved != MAP_FAILED, let base = unsafe reserved else {
      throw .system(call: "mmap", reason: unsafe String(cString: strerror(errno)))
    }
    let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
    var start = 0
    while start < found.count {
      let (run, page) = (found[start].run, found[start].page)
      var end = start + 1
      while end < found.count, found[end].run == run, found[end].page == page + end - start { end += 1 }
      let placed = unsafe mmap(
        base + start * xenPageSize, (end - start) * xenPageSize, protection, MAP_SHARED | MAP_FIXED,
        runs[run]!.descriptor, page * xenPageSize)
      guard unsafe placed != MAP_FAILED else {
        unsafe munmap(base, byteCount)
        throw .system(call: "mmap", reason: unsafe String(cString: strerror(errno)))
      }
      start = end
    }
    for grant in found { runs[grant.run]?.mappedPages += 1 }
    mappings[UInt(bitPattern: base)] = unsafe Mapping(baseAddress: base, runs: found.map(\.run))
    counts.mappedPages += references.count
    counts.mapTotal += references.count
    return unsafe base
  }

  mutating func unmap(at address: UInt) {
    guard let mapping = mappings.removeValue(forKey: address) else {
      preconditionFailure("a mapping ends once")
    }
    unsafe munmap(mapping.baseAddress, mapping.runs.count * xenPageSize)
    counts.mappedPages -= mapping.runs.count
    for run in mapping.runs {
      runs[run]?.mappedPages -= 1
      forgetIfUnused(run)
    }
  }

  private mutating func forgetIfUnused(_ number: Int) {
    guard let run = runs[number], !run.isShared, run.mappedPages == 0 else { return }
    _ = close(run.descriptor)
    runs[number] = nil
  }

  /// `GNTTABOP_copy` for one segment.
  mutating func copy(_ copy: inout GrantCopy, by grantee: DomainID) {
    counts.copyTotal += 1
    guard Int(copy.offset) + Int(copy.count) <= xenPageSize else {
      copy.status = .badCopyArgument
      return
    }
    switch grant(copy.reference, of: copy.domain, to: grantee, writable: copy.direction == .toGrant) {
    case .failure(let error): copy.status = error.status
    case .success(let grant):
      let remote = unsafe runs[grant.run]!.baseAddress + grant.page * xenPageSize + Int(copy.offset)
      switch copy.direction {
      case .fromGrant: unsafe copy.local.copyMemory(from: remote, byteCount: Int(copy.count))
      case .toGrant: unsafe remote.copyMemory(from: copy.local, byteCount: Int(copy.count))
      }
      copy.status = .okay
    }
  }
}

/// One domain's view of the ``GrantSpace``.
final class LoopbackGrantTable: GrantTable {
  private let domain: DomainID
  private let loopback: Loopback
  private let sharer: Sharer
  private let mapper: Mapper

  init(_ domain: DomainID, in loopback: Loopback) {
    self.domain = domain
    self.loopback = loopback
    sharer = Sharer(loopback: loopback)
    mapper = Mapper(loopback: loopback)
  }

  func share(pageCount: Int, with grantee: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
    precondition(pageCount > 0, "at least one page")
    let shared = unsafe try loopback.grants.withLock { (space) throws(GrantError) in
      unsafe try space.share(pageCount: pageCount, from: domain, with: grantee, writable: writable)
    }
    let region = unsafe SharedRegion(
      baseAddress: shared.baseAddress, byteCount: pageCount * xenPageSize, owner: sharer)
    return unsafe GrantedPages(region: region, references: shared.references)
  }

  func map(_ references: [GrantReference], of owner: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
    let base = unsafe try loopback.grants.withLock { (space) throws(GrantError) in
      unsafe try space.map(references, of: owner, by: domain, writable: writable)
    }
    return unsafe SharedRegion(baseAddress: base, byteCount: references.count * xenPageSize, owner: mapper)
  }

  func copy(_ copies: inout MutableSpan<GrantCopy>) {
    loopback.grants.withLock { space in
      for index in copies.indices { space.copy(&copies[index], by: domain) }
    }
  }

  private final class Sharer: SharedRegionOwner {
    let loopback: Loopback
    init(loopback: Loopback) { self.loopback = loopback }
    func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {
      let address = UInt(bitPattern: baseAddress)
      loopback.grants.withLock { $0.unshare(at: address) }
    }
  }

  private final class Mapper: SharedRegionOwner {
    let loopback: Loopback
    init(loopback: Loopback) { self.loopback = loopback }
    func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {
      let address = UInt(bitPattern: baseAddress)
      loopback.grants.withLock { $0.unmap(at: address) }
    }
  }
}

import NetBack
import XenPlatform

/// Slots of both network rings: transmit requests until they are a packet, receive responses, extra infos.
func fuzzNetSlots(_ input: inout FuzzInput) {
  let offloads = NetOffloads(rawValue: input.next(UInt8.self) & 15)
  let (scatterGather, hashes, more) = (input.flag(), input.flag(), input.flag())
  var assembly = NetTxAssembly(
    NetTxAgreement(scatterGather: scatterGather, offloads: offloads, multicastControl: more, hashes: hashes))
  let receiving = NetRxAgreement(scatterGather: scatterGather, offloads: offloads, hashes: hashes, headroom: more)
  var extraInfos = NetRxExtraInfos()
  var slots = 0
  while !input.isEmpty {
    switch input.next(UInt8.self) % 4 {
    case 0, 1:
      slots += 1
      do throws(NetTxViolation) {
        guard case let progress = try assembly.take(input.transmitSlot()), progress != .incomplete else { break }
        require(slots == assembly.fragmentCount + assembly.extraInfoCount, "each slot is a fragment or an extra info")
        if progress == .packet { check(assembly, scatterGather: scatterGather) }
        slots = 0
      } catch {
        require(slots > NetIf.ExtraType.count || slots > NetIf.fatalFragmentCount, "\(slots) slots are not too many")
        return
      }
    case 2:
      let slot = input.next(UInt16.self) & 255
      let raw = NetIfRxResponse(
        id: input.next(UInt8.self) < 200 ? slot : input.next(), offset: input.next(),
        flags: UInt16(input.next(UInt8.self)), status: input.next())
      guard let fragment = try? NetRxFragment(parsing: raw, in: slot, under: receiving) else { break }
      require(fragment.offset >= 0 && fragment.byteCount >= 0, "no negative place")
      require(fragment.offset + fragment.byteCount <= xenPageSize, "within the page")
      require(scatterGather || !fragment.hasMore, "several slots only where they were agreed on")
      _ = try? NetTxResult(parsing: NetIfTxResponse(id: slot, status: raw.status))
    default:
      let raw = NetIfExtraInfo(type: input.next(UInt8.self) % 8, flags: input.next(), words: input.words())
      if case .headroom(let byteCount)? = try? NetExtraInfo(parsing: raw) {
        require(byteCount <= NetExtraInfo.maxHeadroomByteCount, "no more headroom than there can be")
      }
      do throws(NetResponseViolation) {
        if try !extraInfos.take(raw, under: receiving) { extraInfos = NetRxExtraInfos() }
      } catch {
        require(extraInfos.count == NetIf.ExtraType.count, "no more extra infos than a frame can have")
        extraInfos = NetRxExtraInfos()
      }
      require(extraInfos.segmentation.map { offloads.contains($0.kind) } ?? true, "segments only where agreed on")
      require(extraInfos.hash == nil || hashes, "hashes only where agreed on")
    }
  }
}

private func check(_ assembly: borrowing NetTxAssembly, scatterGather: Bool) {
  require(assembly.byteCount >= NetIf.headerByteCount, "a packet has an Ethernet header")
  require(assembly.fragmentCount == assembly.others.count + 1 || assembly.fragmentCount == 1, "first and others")
  require(scatterGather || assembly.fragmentCount == 1, "several slots only where they were agreed on")
  require(assembly.fragmentCount <= NetIf.maxFragmentCount, "no more slots than a packet has")
  var total = Int(assembly.first.byteCount)
  require(Int(assembly.first.offset) + total <= xenPageSize && total > 0, "the first one within its page")
  for fragment in assembly.others.prefix(assembly.fragmentCount - 1) {
    require(Int(fragment.offset) + Int(fragment.byteCount) <= xenPageSize, "within its page")
    total += Int(fragment.byteCount)
  }
  require(total == Int(assembly.byteCount), "the sum of its fragments")
}

extension FuzzInput {
  fileprivate mutating func words() -> (UInt16, UInt16, UInt16) { (next(), next(), next()) }

  fileprivate mutating func transmitSlot() -> NetIfTxRequest {
    let kind = next(UInt8.self)
    let reference = GrantReference(rawValue: kind & 0x40 == 0 ? next(UInt32.self) : UInt32(kind))
    return NetIfTxRequest(
      gref: reference, offset: kind & 0x20 == 0 ? UInt16(next(UInt8.self)) : next(), flags: UInt16(kind & 15), id: 1,
      size: kind & 0x80 == 0 ? UInt16(next(UInt8.self)) : next())
  }
}

/// A frame's own bytes: headers, checksums, flows, and segments.
func fuzzNetHeaders(_ input: inout FuzzInput) {
  let payloadByteCount = input.next(UInt16.self)
  let kind = input.next(UInt8.self)
  var frame = input.headers(kind) + input.rest()
  let flow = NetFlow(of: frame.span)
  _ = NetFlow.queue(for: frame.span, of: 3)
  if let flow {
    _ = Toeplitz(key: [UInt8](repeating: 0x6D, count: Toeplitz.maxKeyByteCount).span).value(of: flow, withPorts: true)
  }
  guard let headers = try? NetHeaders(parsing: frame.span) else { return }
  require(flow != nil, "whole packets have a flow")
  require(
    headers.networkOffset < headers.transportOffset && headers.transportOffset < headers.payloadOffset, "in order")
  require(headers.payloadOffset <= headers.end && headers.end <= frame.count, "within the frame")
  if let segmenter = try? NetSegmenter(
    frame.span, .init(headers.network == .ipv4 ? .tcpv4 : .tcpv6, payloadByteCount: payloadByteCount))
  {
    var end = headers.payloadOffset
    var buffer = [UInt8](repeating: 0, count: frame.count)
    for index in 0..<min(segmenter.frameCount, 64) {
      let payload = segmenter.payload(of: index)
      require(payload.lowerBound == end && payload.upperBound <= headers.end, "one segment after the other")
      end = payload.upperBound
      var span = buffer.mutableSpan
      segmenter.write(index, of: frame.span, to: &span)
    }
    require(segmenter.frameCount > 64 || end == headers.end, "nothing of the payload is lost")
  }
  var span = frame.mutableSpan
  headers.fillChecksum(in: &span)
  require((try? NetHeaders(parsing: frame.span)) == headers, "a checksum changes no header")
}

extension FuzzInput {
  /// An Ethernet header, and the first words of what it announces, so that not each of them has to be found by chance.
  fileprivate mutating func headers(_ kind: UInt8) -> [UInt8] {
    let addresses = [UInt8](repeating: 2, count: 12)
    let tag: [UInt8] = kind & 8 == 0 ? [] : [0x81, 0, 0, 1]
    switch kind & 7 {
    case 0: return addresses + tag
    case 1: return addresses + tag + [0x08, 0x00]
    case 2: return addresses + tag + [0x86, 0xDD]
    case 3, 4:
      // As long as what follows says, and with a transport.
      let byteCount = next(UInt8.self)
      return addresses + tag + [0x08, 0, 0x45, 0, 0, byteCount, 0, 0, 0, 0, 64, kind & 1 == 1 ? 6 : 17, 0, 0]
    default:
      let byteCount = next(UInt8.self)
      return addresses + tag + [0x86, 0xDD, 0x60, 0, 0, 0, 0, byteCount, kind & 1 == 1 ? 6 : next(), 64]
    }
  }
}

/// Requests of a control ring, and what the pages that they name hold.
func fuzzNetControl(_ input: inout FuzzInput) {
  let queueCount = 1 + input.below(8)
  var configuration = NetHashConfiguration()
  while !input.isEmpty {
    let near = input.flag()
    let number: (inout FuzzInput) -> UInt32 = { near ? UInt32($0.next(UInt8.self)) : $0.next() }
    let raw = NetIfControlRequest(
      id: input.next(), type: UInt16(input.next(UInt8.self) % 13),
      data: (number(&input), number(&input), number(&input)))
    guard let request = try? NetControlRequest(parsing: raw) else { continue }
    let byteCount = request.input?.byteCount ?? 0
    require(byteCount <= xenPageSize, "within the page")
    require(request.type.rawValue == raw.type, "what was asked for")
    let before = configuration
    let page = input.take(byteCount)
    if (try? configuration.apply(request, input: page.span, queueCount: queueCount)) == nil {
      require(configuration == before, "what is refused changes nothing")
    }
    require(configuration.key.count <= Toeplitz.maxKeyByteCount, "no longer key than there can be")
    require(configuration.mapping.count <= NetHashConfiguration.maxMappingCount, "no longer mapping")
    require(configuration.mapping.allSatisfy { $0 < UInt32(queueCount) }, "only queues that there are")
  }
}

"""Molecular constants behind the band-model opacities: one table, six molecules.

Units: cm-1 for every energy, cm/molecule at 296 K for every band intensity.

Where the numbers come from:

- Fundamental frequencies and ground-state rotational constants are the standard values of Shimanouchi (1972,
  NSRDS-NBS 39, "Tables of Molecular Vibrational Frequencies") and Herzberg (1945, 1950); good to about 0.1 %.
- H2O band origins and intensities are sums over the HITRAN 2012 line list (Rothman et al. 2013, JQSRT 130, 4).
- APPROXIMATE: every other band intensity, every anharmonicity, rotation-vibration and Coriolis constant. They are
  literature values rounded to two figures and have not been re-derived from a line list. Weak overtone bands
  (CH4, NH3 and CO2 below about 1.3 micron) can be wrong by a factor of a few.
- SO2: constants of the ground state and anharmonicities of Shelton, Nielsen & Fletcher (1953, J. Chem. Phys. 21, 2178),
  rounded: they give the origins of the six strongest bands within 1 cm-1. Intensities are sums over the cells of the
  table that its k-distributions are fitted to (HITRAN 2016).
- APPROXIMATE: `smoothing` stands for unresolved sub-bands and resonances that the model lacks; set by eye.
"""

from dataclasses import dataclass

REFERENCE_TEMPERATURE = 296.0  # K, of the band intensities (HITRAN's convention)


@dataclass(frozen=True)
class Band:
    """One cold vibrational band, from the ground state."""

    origin: float  # band centre [cm-1]
    intensity: float  # integrated, at 296 K [cm/molecule]
    quanta: tuple  # gained per normal mode, in the order of `Molecule.modes`
    branches: str  # selection rule: "parallel" or "perpendicular", for the asymmetric top "a-type" or "b-type"
    smoothing: float  # standard deviation of the Gaussian laid over the band [cm-1]
    # Slope of the line strengths with distance from the origin [dex per cm-1]: vibration-rotation coupling moves
    # intensity between the branches. APPROXIMATE: set by hand.
    herman_wallis: float = 0.0


@dataclass(frozen=True)
class Molecule:
    """Constants of one molecule, all in cm-1."""

    rotor: str  # "linear", "spherical", "symmetric", "prolate" (nearly) or "asymmetric"
    # Ground state: (B,); (B, C) of the symmetric, ((B + C) / 2, A) of the prolate, (A, B, C) of the asymmetric top.
    rotational_constants: tuple
    rotation_vibration: tuple  # per normal mode, what one quantum takes off each rotational constant
    modes: tuple  # (fundamental frequency, degeneracy) of each normal mode
    anharmonicity: tuple  # upper triangle of the matrix x_ij, row by row
    bands: tuple  # of `Band`
    coriolis: tuple = ()  # first-order constant zeta per mode, for tops with degenerate modes


MOLECULES = {
    "H2O": Molecule(
        rotor="asymmetric",
        rotational_constants=(27.881, 14.522, 9.278),
        rotation_vibration=((0.75, 0.22, 0.18), (-3.25, -0.16, 0.14), (1.23, 0.08, 0.14)),
        modes=((3657.05, 1), (1594.75, 1), (3755.93, 1)),
        anharmonicity=((-42.6, -15.9, -165.8), (-16.8, -20.3), (-47.6,)),
        bands=(
            Band(1594.75, 1.07e-17, (0, 1, 0), "b-type", 3, herman_wallis=-0.0016),
            Band(3151.63, 8.2e-20, (0, 2, 0), "b-type", 3, herman_wallis=-0.0030),
            Band(3657.05, 5.3e-19, (1, 0, 0), "b-type", 3, herman_wallis=-0.0008),
            Band(3755.93, 7.7e-18, (0, 0, 1), "a-type", 3),
            Band(4666.8, 4.1e-22, (0, 3, 0), "b-type", 3),
            Band(5234.98, 3.8e-20, (1, 1, 0), "b-type", 3),
            Band(5331.27, 8.36e-19, (0, 1, 1), "a-type", 3),
            Band(6775.1, 2.9e-21, (1, 2, 0), "b-type", 3),
            Band(6871.52, 4.5e-20, (0, 2, 1), "a-type", 3),
            Band(7201.54, 8.1e-20, (2, 0, 0), "b-type", 3),
            Band(7249.82, 5.4e-19, (1, 0, 1), "a-type", 3),
            Band(7445.06, 4.5e-21, (0, 0, 2), "b-type", 3),
            Band(8273.98, 1e-21, (1, 3, 0), "b-type", 4),
            Band(8373.8, 1.43e-21, (0, 3, 1), "a-type", 4),
            Band(8761.6, 1.8e-21, (2, 1, 0), "b-type", 4),
            Band(8807.0, 4.12e-20, (1, 1, 1), "a-type", 4),
            Band(9000.1, 8.7e-22, (0, 1, 2), "b-type", 4),
            Band(10328.7, 2.5e-21, (1, 2, 1), "a-type", 5),
            Band(10599.7, 1.8e-21, (3, 0, 0), "b-type", 5),
            Band(10613.35, 1.92e-20, (2, 0, 1), "a-type", 5),
            Band(10868.9, 6.3e-22, (1, 0, 2), "b-type", 5),
            Band(11032.4, 2.16e-21, (0, 0, 3), "a-type", 5),
            Band(12139.3, 7e-23, (3, 1, 0), "b-type", 6),
            Band(12151.3, 1.47e-21, (2, 1, 1), "a-type", 6),
            Band(13652.7, 1.8e-22, (2, 2, 1), "a-type", 6),
            Band(13830.9, 1.25e-21, (3, 0, 1), "a-type", 6),
            Band(14318.8, 2e-22, (1, 0, 3), "a-type", 6),
            Band(15347.9, 9e-23, (3, 1, 1), "a-type", 8),
            Band(16898.8, 1.2e-22, (4, 0, 1), "a-type", 8),
        ),
    ),
    "CH4": Molecule(
        rotor="spherical",
        rotational_constants=(5.241,),
        rotation_vibration=((0.037,), (-0.09,), (0.037,), (0.06,)),
        modes=((2916.5, 1), (1533.3, 2), (3019.5, 3), (1310.8, 3)),
        anharmonicity=((-13.0, -3.0, -32.0, -2.0), (-1.3, -10.0, -11.0), (-18.0, -20.0), (-8.0,)),
        coriolis=(0, 0, 0.055, 0.456),
        bands=(
            Band(1310.8, 5.05e-18, (0, 0, 0, 1), "parallel", 4),
            Band(1533.3, 6e-20, (0, 1, 0, 0), "parallel", 12),
            Band(2612.0, 7e-20, (0, 0, 0, 2), "parallel", 20),
            Band(2838.0, 4.2e-19, (0, 1, 0, 1), "parallel", 20),
            Band(3019.5, 1.03e-17, (0, 0, 1, 0), "parallel", 4),
            Band(3064.0, 3e-20, (0, 2, 0, 0), "parallel", 20),
            Band(3890.0, 1.2e-20, (0, 0, 0, 3), "parallel", 40),
            Band(4130.0, 4e-20, (0, 1, 0, 2), "parallel", 40),
            Band(4223.5, 2.3e-19, (1, 0, 0, 1), "parallel", 15),
            Band(4321.0, 3.7e-19, (0, 0, 1, 1), "parallel", 20),
            Band(4543.0, 6e-20, (0, 1, 1, 0), "parallel", 20),
            Band(5200.0, 1.5e-21, (0, 0, 0, 4), "parallel", 60),
            Band(5600.0, 1.6e-20, (0, 0, 1, 2), "parallel", 50),
            Band(5820.0, 2.4e-20, (1, 1, 0, 1), "parallel", 50),
            Band(5861.0, 1.5e-20, (1, 0, 1, 0), "parallel", 20),
            Band(6004.6, 6.2e-20, (0, 0, 2, 0), "parallel", 8),
            Band(6060.0, 4e-21, (0, 2, 1, 0), "parallel", 40),
            Band(6900.0, 3e-21, (0, 0, 1, 3), "parallel", 70),
            Band(7110.0, 1.9e-20, (1, 0, 1, 1), "parallel", 60),
            Band(7300.0, 8e-21, (0, 0, 2, 1), "parallel", 60),
            Band(7510.0, 6e-21, (0, 1, 2, 0), "parallel", 50),
            Band(8430.0, 6e-21, (0, 0, 2, 2), "parallel", 80),
            Band(8620.0, 4e-21, (1, 0, 2, 0), "parallel", 60),
            Band(8800.0, 2.5e-21, (0, 0, 3, 0), "parallel", 60),
            Band(9950.0, 1e-21, (0, 0, 3, 1), "parallel", 90),
            Band(10150.0, 5e-22, (1, 0, 2, 1), "parallel", 70),
            Band(11270.0, 6e-22, (0, 0, 4, 0), "parallel", 70),
            Band(12700.0, 6e-23, (0, 0, 4, 1), "parallel", 100),
            Band(13750.0, 1.2e-22, (0, 0, 5, 0), "parallel", 80),
            Band(16150.0, 2.5e-23, (0, 0, 6, 0), "parallel", 90),
        ),
    ),
    "CO": Molecule(
        rotor="linear",
        rotational_constants=(1.9225,),
        rotation_vibration=((0.0175,),),
        modes=((2143.27, 1),),
        anharmonicity=((-13.29,),),
        bands=(
            Band(2143.27, 1e-17, (1,), "parallel", 3),
            Band(4260.06, 7.6e-20, (2,), "parallel", 3),
            Band(6350.44, 4.8e-22, (3,), "parallel", 3),
            Band(8414.5, 4e-24, (4,), "parallel", 3),
        ),
    ),
    "CO2": Molecule(
        rotor="linear",
        rotational_constants=(0.39022,),
        rotation_vibration=((0.00121,), (-0.00072,), (0.00309,)),
        modes=((1388.2, 1), (667.38, 2), (2349.14, 1)),
        anharmonicity=((-2.9, -3.6, -19.1), (-0.6, -12.5), (-12.5,)),
        bands=(
            Band(667.4, 8.2e-18, (0, 1, 0), "perpendicular", 3),
            Band(1932.5, 5e-22, (0, 3, 0), "perpendicular", 4),
            Band(2076.9, 8e-22, (1, 1, 0), "perpendicular", 4),
            Band(2349.14, 9.7e-17, (0, 0, 1), "parallel", 3),
            Band(3612.84, 1.04e-18, (0, 2, 1), "parallel", 4),
            Band(3714.78, 1.58e-18, (1, 0, 1), "parallel", 4),
            Band(4853.62, 7.9e-21, (0, 4, 1), "parallel", 5),
            Band(4977.83, 3.6e-20, (1, 2, 1), "parallel", 5),
            Band(5099.66, 1.1e-20, (2, 0, 1), "parallel", 5),
            Band(6075.98, 5.5e-23, (0, 6, 1), "parallel", 6),
            Band(6227.92, 4.6e-22, (1, 4, 1), "parallel", 6),
            Band(6347.85, 4.7e-22, (2, 2, 1), "parallel", 6),
            Band(6503.08, 6e-23, (3, 0, 1), "parallel", 6),
            Band(6972.58, 1.5e-21, (0, 0, 3), "parallel", 4),
            Band(8192.55, 8e-24, (0, 2, 3), "parallel", 6),
            Band(8293.95, 1.3e-23, (1, 0, 3), "parallel", 6),
            Band(9517.0, 1e-24, (1, 2, 3), "parallel", 8),
            Band(11496.0, 1e-25, (0, 0, 5), "parallel", 8),
        ),
    ),
    "NH3": Molecule(
        rotor="symmetric",
        rotational_constants=(9.9443, 6.228),
        rotation_vibration=((0.08, 0.05), (-0.08, 0.09), (0.17, 0.07), (-0.25, 0.03)),
        modes=((3336.5, 1), (950.3, 1), (3443.8, 2), (1626.8, 2)),
        anharmonicity=((-27.0, 5.0, -60.0, -12.0), (-15.0, 5.0, -15.0), (-18.0, -20.0), (-9.0,)),
        coriolis=(0, 0, 0.06, -0.25),
        bands=(
            Band(950.3, 2.25e-17, (0, 1, 0, 0), "parallel", 12),
            Band(1626.8, 4.55e-18, (0, 0, 0, 1), "perpendicular", 4),
            Band(1740.0, 5.5e-19, (0, 2, 0, 0), "parallel", 110),
            Band(2384.2, 2.46e-20, (0, 3, 0, 0), "parallel", 6),
            Band(2895.5, 9.8e-21, (0, 3, 0, 0), "parallel", 6),
            Band(2563.0, 1.45e-20, (0, 1, 0, 1), "perpendicular", 20),
            Band(3228.0, 2.2e-19, (0, 0, 0, 2), "perpendicular", 15),
            Band(3336.5, 8e-19, (1, 0, 0, 0), "parallel", 4),
            Band(3443.8, 5.5e-19, (0, 0, 1, 0), "perpendicular", 4),
            Band(4307.0, 9e-20, (1, 1, 0, 0), "parallel", 12),
            Band(4426.0, 1.9e-19, (0, 1, 1, 0), "perpendicular", 10),
            Band(4955.9, 5e-20, (1, 0, 0, 1), "perpendicular", 10),
            Band(5052.6, 2.1e-19, (0, 0, 1, 1), "perpendicular", 20),
            Band(5900.0, 1e-20, (1, 1, 0, 1), "perpendicular", 50),
            Band(6030.0, 1.5e-20, (0, 1, 1, 1), "perpendicular", 50),
            Band(6556.0, 4e-20, (1, 0, 0, 2), "perpendicular", 40),
            Band(6608.8, 8e-20, (1, 0, 1, 0), "perpendicular", 15),
            Band(6677.0, 2e-20, (0, 0, 1, 2), "perpendicular", 30),
            Band(6850.0, 8e-21, (0, 0, 2, 0), "perpendicular", 30),
            Band(7670.0, 4e-21, (1, 1, 1, 0), "perpendicular", 50),
            Band(8180.0, 8e-21, (1, 0, 1, 1), "perpendicular", 60),
            Band(8450.0, 3e-21, (0, 0, 2, 1), "perpendicular", 60),
            Band(9690.0, 2.5e-21, (2, 0, 1, 0), "perpendicular", 60),
            Band(11350.0, 2.5e-22, (2, 0, 1, 1), "perpendicular", 80),
            Band(12630.0, 2e-22, (3, 0, 1, 0), "perpendicular", 70),
            Band(15450.0, 3e-23, (4, 0, 1, 0), "perpendicular", 90),
        ),
    ),
    "SO2": Molecule(
        rotor="prolate",
        rotational_constants=(0.31886, 2.02736),
        rotation_vibration=((0.0016, -0.0011), (0.0003, -0.039), (0.0012, 0.0207)),
        modes=((1151.7, 1), (517.7, 1), (1362.1, 1)),
        anharmonicity=((-3.99, -2.05, -13.71), (-3.0, -3.9), (-5.17,)),
        coriolis=(0, 0, 0),
        bands=(
            Band(1151.7, 3.7e-18, (1, 0, 0), "perpendicular", 3),
            Band(1362.1, 3.1e-17, (0, 0, 1), "parallel", 3),
            Band(1665.1, 2e-21, (1, 1, 0), "perpendicular", 4),
            Band(1875.8, 6.8e-21, (0, 1, 1), "parallel", 4),
            Band(2295.8, 5.4e-20, (2, 0, 0), "perpendicular", 4),
            Band(2499.9, 6e-19, (1, 0, 1), "parallel", 4),
            Band(2713.4, 4e-21, (0, 0, 2), "perpendicular", 4),
            Band(2807.2, 1.1e-22, (2, 1, 0), "perpendicular", 4),
            Band(3005.0, 1.9e-22, (1, 1, 1), "parallel", 4),
            Band(3629.8, 5.7e-21, (2, 0, 1), "parallel", 5),
            Band(4054.3, 1.3e-21, (0, 0, 3), "parallel", 5),
        ),
    ),
}
